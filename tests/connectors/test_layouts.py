"""Known layouts by name: each reads records in that layout, by its documentation."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from synthehr._files import shipped
from synthehr.connectors.records import read
from synthehr.errors import SchemaError
from synthehr.schema.files import layouts, load_schema

SYNTHEA = Path(__file__).parents[3] / "shared" / "data" / "tables" / "synthea_csv"

MIMIC = {
    "hosp/patients": """subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod
10,F,52,2180,2014 - 2016,2181-02-10
11,M,91,2125,2011 - 2013,""",
    "hosp/admissions": """subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admit_provider_id,\
admission_location,discharge_location,insurance,language,marital_status,race,edregtime,edouttime,hospital_expire_flag
10,200,2180-05-06 22:23:00,2180-05-07 17:15:00,,URGENT,P1,TRANSFER FROM HOSPITAL,HOME,Other,ENGLISH,WIDOWED,WHITE,\
2180-05-06 19:17:00,2180-05-06 23:30:00,0
11,201,2125-01-01 00:00:00,,,EW EMER.,P2,EMERGENCY ROOM,,Medicare,?,,UNKNOWN,,,1""",
    "hosp/transfers": """subject_id,hadm_id,transfer_id,eventtype,careunit,intime,outtime
10,200,300,ED,Emergency Department,2180-05-06 19:17:00,2180-05-06 23:30:00
10,,301,discharge,,2180-05-07 17:15:00,""",
    "hosp/services": """subject_id,hadm_id,transfertime,prev_service,curr_service
10,200,2180-05-06 22:24:57,,MED""",
    "hosp/diagnoses_icd": """subject_id,hadm_id,seq_num,icd_code,icd_version
10,200,1,5723,9
11,201,1,I10,10""",
    "hosp/procedures_icd": """subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version
10,200,1,2180-05-07,5491,9""",
    "hosp/drgcodes": """subject_id,hadm_id,drg_type,drg_code,description,drg_severity,drg_mortality
10,200,APR,279,HEPATIC COMA,4,2""",
    "hosp/hcpcsevents": """subject_id,hadm_id,chartdate,hcpcs_cd,seq_num,short_description
10,200,2180-05-07,99218,1,Hospital observation""",
    "hosp/labevents": """labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,storetime,value,\
valuenum,valueuom,ref_range_lower,ref_range_upper,flag,priority,comments
1,10,,900,51237,P9,2180-03-23 11:51:00,2180-03-23 15:56:00,1.4,1.4,,0.9,1.1,abnormal,ROUTINE,
2,10,200,901,50853,P9,2180-05-06 23:51:00,,___,,ng/mL,30,60,,STAT,free words""",
    "hosp/microbiologyevents": """microevent_id,subject_id,hadm_id,micro_specimen_id,order_provider_id,chartdate,\
charttime,\
spec_itemid,spec_type_desc,test_seq,storedate,storetime,test_itemid,test_name,org_itemid,org_name,isolate_num,quantity,\
ab_itemid,ab_name,dilution_text,dilution_comparison,dilution_value,interpretation,comments
1,10,200,50,P1,2180-05-06 00:00:00,2180-05-06 23:00:00,70079,URINE,1,2180-05-09,2180-05-09 00:00:00,90039,\
URINE CULTURE,\
80002,ESCHERICHIA COLI,1,,90004,AMPICILLIN,<=2,<=,2,S,free words""",
    "hosp/omr": """subject_id,chartdate,seq_num,result_name,result_value
10,2180-04-27,1,Blood Pressure,110/65""",
    "hosp/prescriptions": """subject_id,hadm_id,pharmacy_id,poe_id,poe_seq,order_provider_id,starttime,stoptime,\
drug_type,\
drug,formulary_drug_cd,gsn,ndc,prod_strength,form_rx,dose_val_rx,dose_unit_rx,form_val_disp,form_unit_disp,\
doses_per_24_hrs,route
10,200,1,10-36,36,P1,2180-05-07 09:00:00,2180-05-07 23:00:00,MAIN,Sodium Chloride,NACLFLUSH,,0,10 mL Syringe,,3,mL,0.3,\
SYR,3,IV""",
    "icu/icustays": """subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los
10,200,400,MICU,MICU,2180-05-06 23:30:00,2180-05-07 10:00:00,0.4375""",
    "icu/chartevents": """subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,valueuom,\
warning
10,200,400,7,2180-05-07 00:05:00,2180-05-07 00:20:00,220045,86,86,bpm,0
10,200,400,7,2180-05-07 00:05:00,,223791,Alert,,,""",
    "icu/datetimeevents": """subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valueuom,warning
10,200,400,7,2180-05-07 01:00:00,,224184,2180-05-06 00:00:00,Date,0""",
    "icu/inputevents": """subject_id,hadm_id,stay_id,caregiver_id,starttime,endtime,storetime,itemid,amount,\
amountuom,rate,\
rateuom,orderid,linkorderid,ordercategoryname,secondaryordercategoryname,ordercomponenttypedescription,\
ordercategorydescription,patientweight,totalamount,totalamountuom,isopenbag,continueinnextdept,statusdescription,\
originalamount,originalrate
10,200,400,7,2180-05-07 01:00:00,2180-05-07 02:00:00,,225158,50,ml,50,mL/hour,1,1,02-Fluids,,Main order,Continuous Med,\
69.4,50,ml,0,0,FinishedRunning,50,50""",
    "icu/ingredientevents": """subject_id,hadm_id,stay_id,caregiver_id,starttime,endtime,storetime,itemid,amount,\
amountuom,\
rate,rateuom,orderid,linkorderid,statusdescription,originalamount,originalrate
10,200,400,7,2180-05-07 01:00:00,2180-05-07 02:00:00,,220490,50,ml,50,mL/hour,1,1,FinishedRunning,0,50""",
    "icu/outputevents": """subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valueuom
10,200,400,7,2180-05-07 03:00:00,2180-05-07 03:10:00,226559,175,ml""",
    "icu/procedureevents": """subject_id,hadm_id,stay_id,caregiver_id,starttime,endtime,storetime,itemid,value,\
valueuom,\
location,locationcategory,orderid,linkorderid,ordercategoryname,ordercategorydescription,patientweight,isopenbag,\
continueinnextdept,statusdescription,ORIGINALAMOUNT,ORIGINALRATE
10,200,400,7,2180-05-07 04:00:00,2180-05-07 05:00:00,,225402,1,,,,1,1,Procedures,Electrolytes,69.4,0,0,\
FinishedRunning,1,1""",
}
EICU = {
    "patient": """patientunitstayid,patienthealthsystemstayid,gender,age,ethnicity,hospitalid,wardid,apacheadmissiondx,\
admissionheight,hospitaladmittime24,hospitaladmitoffset,hospitaladmitsource,hospitaldischargeyear,\
hospitaldischargetime24,hospitaldischargeoffset,hospitaldischargelocation,hospitaldischargestatus,unittype,\
unitadmittime24,unitadmitsource,unitvisitnumber,unitstaytype,admissionweight,dischargeweight,unitdischargetime24,\
unitdischargeoffset,unitdischargelocation,unitdischargestatus,uniquepid
100,50,Female,> 89,Caucasian,59,91,"Rhythm disturbance",157.5,23:36:00,-1,,2015,17:20:00,1063,Home,Alive,Med-Surg ICU,\
23:37:00,Emergency Department,1,admit,,,20:20:00,1063,Home,Alive,002-1
101,50,Female,> 89,Caucasian,59,91,,157.5,23:36:00,-2000,,2015,17:20:00,900,Home,Alive,MICU,10:00:00,Floor,2,readmit,\
60.1,\
61,20:20:00,700,Floor,Alive,002-1
102,51,Male,0,,60,92,"Sepsis, pulmonary",,01:00:00,-60,,2014,02:00:00,60,Death,Expired,MICU,02:00:00,Floor,1,admit,\
3.2,3.1,\
03:00:00,60,Death,Expired,002-2""",
    "admissiondx": """admissiondxid,patientunitstayid,admitdxenteredoffset,admitdxpath,admitdxname,admitdxtext
1,100,15,admission diagnosis|Was the patient admitted|No,No,No""",
    "apachepatientresult": """apachepatientresultsid,patientunitstayid,physicianspeciality,\
physicianinterventioncategory,\
acutephysiologyscore,apachescore,apacheversion,predictedicumortality,actualicumortality,predictediculos,actualiculos,\
predictedhospitalmortality,actualhospitalmortality,predictedhospitallos,actualhospitallos,preopmi,preopcardiaccath,\
ptcawithin24h,unabridgedunitlos,unabridgedhosplos,actualventdays,predventdays,unabridgedactualventdays
1,100,internal medicine,Unknown,26,39,IV,0.0128,ALIVE,1.1,0.9,0.03,ALIVE,4.1,0.9,0,0,0,0.9,0.9,,,""",
    "diagnosis": """diagnosisid,patientunitstayid,activeupondischarge,diagnosisoffset,diagnosisstring,icd9code,\
diagnosispriority
1,100,True,-5,cardiovascular|arrhythmias|atrial fibrillation,"427.31, I48.0",Primary""",
    "infusiondrug": """infusiondrugid,patientunitstayid,infusionoffset,drugname,drugrate,infusionrate,drugamount,\
volumeoffluid,patientweight
1,102,10,Propofol (mcg/kg/min),5,2.1,1000,100,3.2""",
    "intakeoutput": """intakeoutputid,patientunitstayid,intakeoutputoffset,intaketotal,outputtotal,dialysistotal,\
nettotal,\
intakeoutputentryoffset,cellpath,celllabel,cellvaluenumeric,cellvaluetext
1,102,20,100,50,0,50,25,flowsheet|Urine,Urine,50,50""",
    "lab": """labid,patientunitstayid,labresultoffset,labtypeid,labname,labresult,labresulttext,labmeasurenamesystem,\
labmeasurenameinterface,labresultrevisedoffset
1,100,516,1,sodium,139,139,mmol/L,mEq/L,603
2,102,1,3,Hgb,,pending,g/dL,g/dL,2""",
    "medication": """medicationid,patientunitstayid,drugorderoffset,drugstartoffset,drugivadmixture,drugordercancelled,\
drugname,drughiclseqno,dosage,routeadmin,frequency,loadingdose,prn,drugstopoffset,gtc
1,100,134,171,No,No,METOPROLOL TARTRATE,2102,25 3,PO,Q12H SCH,,No,1063,0""",
    "pasthistory": """pasthistoryid,patientunitstayid,pasthistoryoffset,pasthistoryenteredoffset,pasthistorynotetype,\
pasthistorypath,pasthistoryvalue,pasthistoryvaluetext
1,100,10,20,Comprehensive Progress,notes/Progress Notes/Past History,hypertension,hypertension""",
    "treatment": """treatmentid,patientunitstayid,treatmentoffset,treatmentstring,activeupondischarge
1,100,30,cardiovascular|arrhythmias|anticoagulant,False""",
    "vitalaperiodic": """vitalaperiodicid,patientunitstayid,observationoffset,noninvasivesystolic,noninvasivediastolic,\
noninvasivemean,paop,cardiacoutput,cardiacinput,svr,svri,pvr,pvri
1,100,3,120,66,80,,,,,,,""",
    "vitalperiodic": """vitalperiodicid,patientunitstayid,observationoffset,temperature,sao2,heartrate,respiration,\
cvp,etco2,\
systemicsystolic,systemicdiastolic,systemicmean,pasystolic,padiastolic,pamean,st1,st2,st3,icp
1,100,3,,97,86,18,,,,,,,,,,,,""",
}


def put(folder: Path, files: dict[str, str], ending: str = ".csv") -> Path:
    for name, text in files.items():
        path = folder / f"{name}{ending}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    return folder


def test_the_layouts_are_shipped_and_load() -> None:
    assert set(layouts()) == {"synthea-csv", "mimic-iv", "eicu"}
    assert all(load_schema(name).reviewed for name in layouts())
    assert shipped("schemas/layouts/README.md").is_file()


def test_a_name_that_is_neither_layout_nor_file_is_told() -> None:
    with pytest.raises(SchemaError, match="neither a file nor one of the known layouts eicu, mimic-iv, synthea-csv"):
        load_schema("mimic-3")


def test_mimic_is_read_from_its_folders_with_times_from_the_first_date(tmp_path: Path) -> None:
    cohort = read(put(tmp_path, MIMIC), schema="mimic-iv")
    assert {name: frame.height for name, frame in cohort.tables.items()} == {
        name.split("/")[1]: text.count("\n") for name, text in MIMIC.items()
    }
    # patient 10 was first seen on 2180-03-23: the admission 44 days and 22 hours after that midnight, death in 324 days
    admissions = cohort.tables["admissions"].sort("hadm_id")
    assert admissions["admittime"].to_list() == [44 * 24 + 22, 0]
    assert cohort.root["dod"].to_list() == [324, None]
    assert cohort.tables["labevents"]["charttime"].to_list() == [11, 44 * 24 + 23]
    dates = [dtype for frame in cohort.tables.values() for dtype in frame.dtypes if dtype.is_temporal()]
    assert dates == []


def test_a_person_of_eicu_is_gathered_from_stays(tmp_path: Path) -> None:
    cohort = read(put(tmp_path, EICU), schema="eicu")
    assert cohort.root.to_dict(as_series=False) == {"uniquepid": ["002-1", "002-2"], "gender": ["Female", "Male"]}
    stays = cohort.tables["stay"]
    assert stays["hospitaladmitoffset"].to_list() == [-1, -2000, -60]
    assert stays["age"].to_list() == ["> 89", "> 89", "0"]
    assert cohort.owners("lab").tolist() == [0, 1]
    counts = {name: text.count("\n") for name, text in EICU.items() if name != "patient"}
    assert {name: cohort.tables[name].height for name in counts} == counts


@pytest.mark.skipif(not SYNTHEA.is_dir(), reason="Synthea's tables are not here")
def test_all_tables_of_synthea_are_read_whole() -> None:
    cohort = read(SYNTHEA, schema="synthea-csv")
    assert len(cohort.tables) == 15
    for name, frame in cohort.tables.items():
        file = next(SYNTHEA.glob(f"{name}.csv*"))
        assert frame.height == pl.read_csv(file, infer_schema=False).height, name
    assert not any(dtype.is_temporal() for frame in cohort.tables.values() for dtype in frame.dtypes)
